"""Each result as text, JSON or Markdown."""
