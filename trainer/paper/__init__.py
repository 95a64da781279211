"""The experiments of "Any-Width Networks" (Vu, Eder, Price, Frahm, 2020): its numbers, our cells, and what became of them."""
