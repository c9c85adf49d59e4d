"""The words of image-text pairs: who writes them, and what they may say; what training draws is `medclip.text.captions`."""
