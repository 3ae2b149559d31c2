"""The what-if page: what it shows as data, and the small server that hands it to a browser.

Everything the page shows comes out of `answers.Page`: the server asks it, and so does the program
that runs in the browser itself where the page is built as files. The scripts of the page only put
what they get where it belongs; no figure is computed there.
"""
