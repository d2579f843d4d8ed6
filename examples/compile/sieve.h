/* next_prime returns the smallest prime above n. */
unsigned next_prime(unsigned n);
