"""Names that methods have in papers and other tools.

A name stands here only where the method of this package is the one of that name. What is near to
one but something else (CRAIG weights its picks by gradients, `facility-location` does not) has no
alias.
"""

from __future__ import annotations

from thresher.plugins import Alias

ALIASES = {
    "bsdetector": Alias("confidence"),
    "bm25": Alias("target-similarity", {"kernel": "bm25"}),
    "clear": Alias("confidence"),
    "coreset": Alias("k-center"),
    "cover*margin": Alias("uncertainty-coverage"),
    "davir": Alias("learnability"),
    "ifd": Alias("difficulty"),
    "less": Alias("gradient"),
    "lobass": Alias("learnability", {"form": "difference"}),
    "margin-coverage": Alias("uncertainty-coverage"),
    "qdit": Alias("quality-diversity"),
    "rds+": Alias("target-similarity", {"kernel": "hidden_state"}),
    "sift": Alias("target-similarity", {"form": "sift"}),
    "slick": Alias("known-unknown"),
    "superfiltering": Alias("difficulty", {"ratio": "perplexity"}),
}

# Names of something that is no selector here, and where it is.
ELSEWHERE = {
    "semdedup": "the curation rule 'semantic-duplicates': thresher curate clean POOL --rules semantic-duplicates"
}
