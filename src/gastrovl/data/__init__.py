"""Stage 1: image collections of any form to one set of records and conversations. Imports no torch."""
