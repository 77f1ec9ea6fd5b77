"""Ways of growing: from seeds to candidates, one file each, called by `growth.grow`.

Each has one function from `Seeds` to `Candidate`s, of which those that broke its own check carry
the reason. Imports `growth.seeds`, `growth.candidate` and below.
"""
