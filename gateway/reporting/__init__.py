"""What a tenant's month came to: evidence on savings and quality, the report, and its text and page."""
