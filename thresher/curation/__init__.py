"""Curation: a loop on the first noun, dataset -> dataset + manifest. Rules are planned, none is here yet."""
