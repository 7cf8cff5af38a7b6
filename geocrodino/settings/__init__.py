"""What a user can configure: values checked by pydantic, without a heavy library."""
