"""What is known of revisions without a database: files, numbers, order, statements and checksums."""
