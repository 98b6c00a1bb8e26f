"""What builds the documentation beside its written pages: hooks of MkDocs and the pages that they generate."""
