"""Plans, conflicts and progress in words, for the pages. All of it is plain text; the templates escape it."""
