"""What api and worker have in common: the vocabulary, the rules, the database, the line."""
