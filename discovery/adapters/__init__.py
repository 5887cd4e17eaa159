"""One outside thing a file: storage, catalog, decoder, encoder, index library, Dask, Great Expectations, MLflow."""
