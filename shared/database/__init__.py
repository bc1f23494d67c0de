"""PostgreSQL: the tables, every SQL statement, the one context manager that commits, the migrations."""
