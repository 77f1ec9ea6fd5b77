"""Addresses: s3://, gs://, hf://, https://, memory:// and file:// in place of a path.

`address.py` parses them, `storage.py` is the storage behind one, `errors.py` its errors in our
words, `places.py` says which local folder stands for which address, `fetch.py` brings what is read
here, `result.py` publishes an output folder, the manifest last, `lock.py` keeps two runs apart.
Whatever is read is copied to the cache first, and whatever is written is made there and uploaded,
so that the rest of the package knows paths alone. Imported by `artifacts/folder.py` and above. A
new scheme is a line in `address.py`.
"""
