"""Promotion: a study's best trial is judged on the locked test split and becomes a registered model's champion."""
