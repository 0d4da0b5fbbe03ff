"""What a network makes of whole images, judged: the documented astronomy pipeline's results, made right."""
