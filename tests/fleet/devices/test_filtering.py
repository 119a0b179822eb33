import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.devices import filtering
from fleet.devices.filtering import FilterError, Traits, matches, parse

CAM = Traits(
    "cam-7", "North door", "hall-3", "orin-nano-8g", "active", "0.1.0", True, {"line": "4"}, {"digits": "1.1.0"}
)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("cam", True),
        ("North", True),
        ("c*7", True),
        ("site:hall-3 online:true", True),
        ("site:hall-3 online:false", False),
        ("site:hall-3 and label.line:5", False),
        ("label.line:5 or serving.digits:1.1.*", True),
        ("not site:gate -hardware:orin*", False),
        ("(site:gate or site:hall-3) not (label.line:5)", True),
        ('name:"North door"', True),
        ("label.colour:*", False),
        ("x or y online:true or z", False),
    ],
)
def test_a_filter_means_what_it_says(text: str, fits: bool) -> None:
    assert matches(parse(text), CAM) is fits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("site:a (online:true", "this parenthesis is not closed, at character 8: site:a ⟶(online:true"),
        ("a)", "this parenthesis closes nothing, at character 2: a⟶)"),
        ("a or", "something is missing here, at character 5: a or⟶"),
        ("a or or b", "something is missing before 'or', at character 6"),
        ("colour:red", "there is no filter 'colour', at character 1: ⟶colour:red"),
        ("a site:", "'site' without a value, at character 3: a ⟶site:"),
        ("online:maybe", "online is true or false, at character 8: online:⟶maybe"),
        ('name:"x', "this quotation mark is not closed, at character 6"),
        ("(" * 30 + "a" + ")" * 30, "more than 20 levels"),
        ("x" * 501, "a filter of 501 characters"),
    ],
)
def test_what_cannot_be_read_points_at_the_place(text: str, said: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert said in caught.value.detail


@given(st.text(alphabet='ab:*()"- ornt.site', max_size=40))
def test_any_text_is_a_filter_or_an_error(text: str) -> None:
    try:
        found = parse(text)
    except FilterError:
        return
    assert matches(found, CAM) in (True, False)


def test_the_grammar_knows_every_trait() -> None:
    assert set(Traits._fields) == {*filtering.KEYS, *filtering.MAPPINGS, "online"}
