"""The report layer: estimates and verdicts in, text out.

    serial     JSON, the contract scripts depend on
    tables     terminal tables, with `chart` for the picture of a budget
    markdown   the same tables for GitHub
    html       one self-contained page, drawn by `svg` and `timeline`; printed by an
               `installed_browser`

`rows` and `budget` prepare what every format shows, `phrases` words it, `text` makes strangers'
text harmless and `colour` decides what a terminal gets to see.
"""
