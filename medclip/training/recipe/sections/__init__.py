"""The sections of a recipe, as classes that check their keys; what holds between them is in `schema`. No torch here."""
