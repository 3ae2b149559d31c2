"""One module per command: ``configure(parser)`` says what it takes, ``run(args)`` does it.

`arguments`, `targets`, `choices` and `output` hold what several commands take, find and write.
"""
