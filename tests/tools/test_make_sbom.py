import hashlib
import json
import re

import make_sbom
import pytest

DEVELOPMENT = {"hatchling", "editables", "uv"}


@pytest.fixture(scope="module")
def pinned():
    """What the locks say of packages that are installed here: not all of them need be."""
    installed = make_sbom.find_installed()
    return {name: about for name, about in make_sbom.read_locks().items() if name in installed}


@pytest.fixture(scope="module")
def sbom(pinned):
    return make_sbom.make_sbom(pinned)


def test_every_package_of_the_lock_has_a_hash_but_for_torch():
    pinned = make_sbom.read_locks()
    assert {name for name, (_, hashes) in pinned.items() if not hashes} == {"torch"}
    assert {"thresher", "polars"} - set(pinned) == {"thresher"}
    assert set(pinned) >= DEVELOPMENT


def test_the_lock_has_no_other_line_than_versions_and_hashes():
    for lock in ("requirements.lock", "models.lock"):
        lines = (make_sbom.ROOT / lock).read_text().splitlines()
        wrong = [
            line
            for line in lines
            if not re.fullmatch(r"#.*|[\w.-]+==[\w.+!-]+( \\)?( --hash=.*)?|    --hash=sha256:[0-9a-f]{64}( \\)?", line)
        ]
        assert not wrong


def test_all_that_thresher_needs_is_listed_with_its_version_license_and_hashes(sbom, pinned):
    components = {each["name"].lower().replace("_", "-"): each for each in sbom["components"]}
    assert set(pinned) <= set(components)
    polars = components["polars"]
    assert polars["purl"] == f"pkg:pypi/polars@{polars['version']}"
    assert polars["scope"] == "required"
    assert polars["licenses"]
    hashes = {each["content"] for each in polars["externalReferences"][0]["hashes"]}
    assert hashes == set(pinned["polars"][1])
    assert components["peft"]["scope"] == "optional"
    assert components["pytest"]["scope"] == "excluded"


def test_references_are_unique_and_lead_somewhere(sbom):
    parts = [*sbom["components"], *(file for each in sbom["components"] for file in each.get("components", ()))]
    names = [part["bom-ref"] for part in parts] + [sbom["metadata"]["component"]["bom-ref"]]
    assert len(set(names)) == len(names)
    for each in sbom["dependencies"]:
        assert {each["ref"], *each["dependsOn"]} <= set(names)
    links = {each["ref"]: each["dependsOn"] for each in sbom["dependencies"]}
    transformers = next(ref for ref in links if ref.startswith("pkg:pypi/transformers@"))
    assert any(ref.startswith("pkg:pypi/tokenizers@") for ref in links[transformers])


def test_files_of_embedded_models_have_their_own_hashes(sbom):
    from thresher.models.causal_lm.embedded import FOLDER
    from thresher.models.encoders.static import FOLDER as STATIC

    models = {each["name"]: each for each in sbom["components"] if each["type"] == "machine-learning-model"}
    for name, folder in (("thresher/tiny-llama", FOLDER), ("thresher/static-minilm-256", STATIC)):
        listed = {file["name"]: file["hashes"][0]["content"] for file in models[name]["components"]}
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != "README.md"]
        assert listed == {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }


def test_equal_installations_give_equal_bytes(sbom, pinned):
    assert json.dumps(make_sbom.make_sbom(pinned)) == json.dumps(sbom)
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", sbom["serialNumber"])


def test_an_installation_of_other_versions_is_refused():
    with pytest.raises(SystemExit, match=r"polars: the locks have version 0\.0\.1, found .*; run make setup"):
        make_sbom.check_installed({"polars": ("0.0.1", [])})
    with pytest.raises(SystemExit, match="no-such: the locks have version 1, found none"):
        make_sbom.check_installed({"no-such": ("1", [])})
