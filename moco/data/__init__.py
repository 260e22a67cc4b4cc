"""From files to views: find, decode, crop and change images."""
