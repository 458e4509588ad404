"""Chat and ranking in the browser, over what is served and the store of labels. No torch."""
