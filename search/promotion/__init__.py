"""Promotion: judge a trial on the locked test split and make it the champion of a registered model."""
