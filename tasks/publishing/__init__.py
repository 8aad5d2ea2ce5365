"""Where a selection is published to: a dataset on the Hugging Face Hub, or a folder, on disk or on S3."""
