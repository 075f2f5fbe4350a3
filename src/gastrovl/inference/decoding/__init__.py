"""Questions to replies in the language model's own words: shared prefixes, forms to hold to, label trees."""
