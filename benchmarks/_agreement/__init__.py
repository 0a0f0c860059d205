"""What is compared with authors' own code: one function a comparison, found in the modules of this package."""
