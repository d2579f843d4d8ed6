#include "sieve.h"

static int is_prime(unsigned n)
{
	for (unsigned d = 2; d <= n / d; d++)
		if (n % d == 0)
			return 0;
	return n > 1;
}

unsigned next_prime(unsigned n)
{
	do
		n++;
	while (!is_prime(n));
	return n;
}
