"""Values: what single columns of the user mean, beside the text: labels, class names, marks.

`labels.py` writes equal labels alike, `class_names.py` decodes the numbers of classes file by file,
`marks.py` knows preference data, `close_guesses.py` columns that a schema should not leave out
unasked, `watched.py` looks at columns that are not read, `turn_flags.py` knows turns that are not
learned, `notes.py` says what a user should know of rows that were read, `given.py` attaches vectors
and probabilities that the user brings, named by the options of `given_settings.py`. Imports the
schema and the reasons of rejection; the readers of `dataset` import it. A new kind of
mark goes into `marks.py`.
"""
