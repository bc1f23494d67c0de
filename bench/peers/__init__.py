"""What Onsale is measured against: small programs, each written as its friends would write it."""
