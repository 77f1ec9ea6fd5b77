"""The table of special columns in the docs says what `load` does."""

import re

import pytest
from special_columns import COLUMNS, PAGE, SCHEMAS, describe_cell, replace_table


def test_the_table_of_the_page_is_up_to_date():
    page = PAGE.read_text()
    assert replace_table(page) == page, "run: python tools/special_columns.py"


@pytest.mark.parametrize("name", [name for name in COLUMNS if "," in name])
def test_all_names_of_a_line_are_treated_alike(name):
    (values,) = COLUMNS[name].values()
    names = [each for each in re.findall("`(.*?)`", name) if each not in COLUMNS[name]]
    for schema in SCHEMAS:
        expected = describe_cell(schema, COLUMNS[name])
        assert {describe_cell(schema, {each: values}) for each in names} <= {expected}, schema
