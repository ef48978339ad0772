"""Each result in words, as JSON and as Markdown."""
