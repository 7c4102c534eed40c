"""Audits: what the catalogue says of the stored bundles is held against the storage itself. No state is changed."""
