#include <stdio.h>
#include <stdlib.h>

#include "sieve.h"

/* Prints the first primes, as many as the first argument says, one a line. */
int main(int argc, char **argv)
{
	unsigned prime = 1;

	for (int left = argc > 1 ? atoi(argv[1]) : 10; left > 0; left--)
		printf("%u\n", prime = next_prime(prime));
	return 0;
}
