"""The chest radiograph wing: from box annotations to written reports."""
