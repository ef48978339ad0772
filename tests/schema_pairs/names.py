"""Names: plain ones, ones that need quotes, and ones as long as PostgreSQL allows."""

from __future__ import annotations

# In all of them, {n} becomes a number that no other name has.
PLAIN = "{kind}_{n}"
ODD = (
    "Mixed Case {n}", "it's {n}", 'say "hi" {n}', "50% of {n}", "a:b{n}", "a.b{n}", "back\\slash{n}", "ünï_{n}",

    "[a-z]*{n}", "-- {n}", "$$ {n}", "{{x}} {n}", "%(s)s {n}", "semi;colon {n}", "two\nlines {n}", "{n}th",
    "select{n} ", "a,b({n})",
)  # fmt: skip
WORDS = ("order", "user", "table", "select", "end", "check", "default", "analyse")
LONGEST = 63


def long(number: int, *, wide: bool) -> str:
    """A name of 63 bytes, which differs from others of its kind only at the end."""
    end = f"_{number}"
    if wide:
        return "é" * ((LONGEST - len(end)) // 2) + "x" * ((LONGEST - len(end)) % 2) + end
    return (
        ("the_name_of_a_thing_that_somebody_wanted_to_describe_in_full_and_more"[: LONGEST - len(end)]) + end
    )
