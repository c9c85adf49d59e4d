"""What is on disk: discover, sniff by bytes, read headers, group into studies, read tables; no pixels are decoded."""
