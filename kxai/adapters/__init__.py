"""Other packages' objects and functions in kxai's terms; none of those packages is imported before it is used."""
