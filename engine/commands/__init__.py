"""The commands: a file for each group, which parses options, makes one call and shows the result.

Only `cli` imports this package. Options that several commands have are in `options`, the words that they
take in `choices`, what is printed in `engine.report` (`*_text`). Heavy imports stand within the functions.
"""
