"""Plain functions as selectors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from thresher.errors import InputError, NotFoundError, SettingsError
from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores

_ARGUMENTS = ("features", "n_ranked", "rng")


@dataclass(frozen=True)
class FunctionSelector(Selector):
    """A function that scores rows, higher is kept first.

    Its parameters say what it needs: `features` is the container of all features, `n_ranked` and
    `rng` are those of `Selector.score`, and any other name is a feature.

    Attributes:
        function: returns (n,) scores, or `Scores`.
        more: further features, for names that cannot be parameters ("column:label").
    """

    function: Callable[..., Any]
    more: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse a function that cannot be called by name, or has none.

        Raises:
            SettingsError: it is a lambda, or has parameters without a name.
        """
        if self.name == "<lambda>":
            raise SettingsError("method: a function needs a name of its own, got a lambda; write it with def")
        kinds = {parameter.kind for parameter in self._parameters.values()}
        if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY}:
            raise SettingsError(f"method: {self.name} must name each of its parameters, found *, ** or / in it")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    @property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.function).parameters)

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.function.__name__

    @property
    def requirements(self) -> Requirements:
        """The features among the parameters, and those that were named besides."""
        required = {name for name, each in self._parameters.items() if each.default is inspect.Parameter.empty}
        return Requirements(features=self.more | required.difference(_ARGUMENTS))

    def settings(self) -> dict[str, Any]:
        """Return a hash of the function's source: a changed function is another request."""
        try:
            code = inspect.getsource(self.function).encode()
        except (OSError, TypeError):  # typed into a console
            code = repr((self.function.__code__.co_code, self.function.__code__.co_consts)).encode()
        return {"function": sha256(code).hexdigest()}

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Call the function.

        Raises:
            NotFoundError: it reads a feature that it has not asked for.
            InputError: it does not return one number per row.
        """
        always = {"features": features, "n_ranked": n_ranked, "rng": rng}
        needs = self.requirements.features
        arguments = {
            name: always[name] if name in always else features[name]
            for name in self._parameters
            if name in always or name in needs
        }
        try:
            value = self.function(**arguments)
        except NotFoundError as error:
            raise NotFoundError(
                f"{self.name}: {error}; make it a parameter, or decorate the function with @selector('NAME')"
            ) from None
        if isinstance(value, Scores):
            return value
        value = np.asarray(value)
        if value.shape != (features.n_rows,) or not np.issubdtype(value.dtype, np.number):
            raise InputError(
                f"{self.name}: must return one number for each of the {features.n_rows} rows, got an array of "
                f"{value.dtype} {value.shape}"
            )
        excluded = features.missing_reasons(*sorted(needs))
        value = np.where(excluded.is_null().to_numpy(), value.astype(np.float64), -np.inf)
        return Scores(row_id=features.row_id, value=value, by=self.name, excluded=excluded)


def selector(*features: str) -> Callable[[Callable[..., Any]], FunctionSelector]:
    """Decorate a function with the features it reads, where they are not its parameters.

        @selector("column:label")
        def rare_labels_first(features): ...

    Args:
        features: their names.
    """
    return lambda function: FunctionSelector(function, frozenset(features))
