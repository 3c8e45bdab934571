"""What we found: from the cards of a run to a page, a Markdown file and committed records. Never imports torch."""
