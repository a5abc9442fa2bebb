"""The entry paths of mail; none imports another."""
