"""The inbox page: mail in the browser as it arrives."""
