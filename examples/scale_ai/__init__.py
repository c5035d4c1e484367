"""A conversation with tools, end to end: web pages, a table, a calculator, Python, a picture."""
