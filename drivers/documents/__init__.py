"""Documents: files of people, read into titled, ordered, positioned blocks of text."""
