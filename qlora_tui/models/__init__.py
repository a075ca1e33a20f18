"""What is known of a base model without loading it."""
