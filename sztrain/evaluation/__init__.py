"""Attack whole data sets, keep a record of every sample, and make tables and figures of them."""
