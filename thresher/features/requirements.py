"""What selectors and rules share: a name, settings, and what must be there before they run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from thresher.errors import SettingsError, did_you_mean
from thresher.validation import check_settings

if TYPE_CHECKING:
    from thresher.features.reference_adapters import RequiredAdapter


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a selector or a rule wants computed, and of which rows; everything is optional.

    Attributes:
        features: of the pool: names of features, "number:NAME" for a column of numbers,
            "column:NAME" for the groups of one.
        side_features: role -> features of the rows of that role: "existing" (rows the user has
            already), "target" (selectors only), "eval" (rules only). Rows are taken only in the
            roles named here. A selector finds the arrays in `features.context` as "ROLE_FEATURE".
        required_roles: roles without which it cannot run.
        feature_settings: fields of `FeatureContext`, for features that need settings.
        adapters: trained on the pool before its features are computed.
        takes_weights: how many rows each row counts for is welcome, as the feature "weight".
    """

    features: Set[str] = frozenset()
    side_features: Mapping[str, Set[str]] = field(default_factory=dict)
    required_roles: Set[str] = frozenset()
    feature_settings: Mapping[str, Any] = field(default_factory=dict)
    adapters: tuple[RequiredAdapter, ...] = ()
    takes_weights: bool = False

    def __new__(cls, **members: Any) -> Requirements:
        """Refuse a name that is not a field, before a TypeError that knows no nearest name would.

        Raises:
            SettingsError: there is no such field.
        """
        known = [each.name for each in fields(cls)]
        for name in members:
            if name not in known:
                hint = did_you_mean(name, known) or f"; they have: {', '.join(known)}"
                raise SettingsError(f"its requirements have no '{name}'{hint}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Refuse a text in place of a set of names, which would be read letter by letter.

        Raises:
            SettingsError: a field is not a set of names.
        """
        sets = {"features": self.features, "required_roles": self.required_roles, **self.side_features}
        for name, names in sets.items():
            if not isinstance(names, Set):
                raise SettingsError(f"its requirements must have a set of names as {name}, got {names!r}")

    @property
    def all_features(self) -> frozenset[str]:
        """Features of the pool and of the other rows together."""
        return frozenset().union(self.features, *self.side_features.values())


class Method(ABC):
    """Base of selectors and rules: a frozen dataclass whose fields are its settings.

    A public member that its base does not declare is refused when the class is loaded, so that none
    is lost by a wrong letter; helpers of your own begin with `_`.
    """

    def __post_init__(self) -> None:
        """Check the settings against their types and bounds.

        Raises:
            SettingsError: a setting has an illegal value.
        """
        check_settings(self, self.name)

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the entry point; a class attribute will do."""

    @property
    def requirements(self) -> Requirements:
        """What it needs: a class attribute, or a property where that depends on settings."""
        return Requirements()

    def settings(self) -> dict[str, Any]:
        """Return the settings in JSON values, which are part of a result's identity.

        None without fields.
        """
        names: list[str] = [each.name for each in fields(self)] if is_dataclass(self) else []
        values = {name: getattr(self, name) for name in names}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
