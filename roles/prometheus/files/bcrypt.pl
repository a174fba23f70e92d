#!/usr/bin/perl
# Print the bcrypt hash of the password on stdin: the one in FILE if it still fits, else a new one.
use strict;
use warnings;

my ($file) = @ARGV;
my $password = do { local $/; <STDIN> };
$password =~ s/\n\z//;

if (open my $config, '<', $file) {
    while (my $line = <$config>) {
        next unless $line =~ m{(\$2[aby]\$\d\d\$[./A-Za-z0-9]{53})};
        my $old = $1;
        if (crypt($password, $old) eq $old) { print $old; exit 0; }
    }
}

open my $random, '<:raw', '/dev/urandom' or die "no /dev/urandom: $!\n";
read $random, my $bytes, 22;
my @letters = ('.', '/', 'A' .. 'Z', 'a' .. 'z', '0' .. '9');
# The last of bcrypt's 22 characters carries two bits only: it must be one of four.
my $salt = join '', map { $letters[$_ & 63] } unpack 'C21', $bytes;
$salt .= ('.', 'O', 'e', 'u')[ord(substr $bytes, 21) & 3];

my $hash = crypt($password, "\$2b\$10\$$salt");
die "this system's crypt() knows no bcrypt\n" unless defined $hash && $hash =~ m{^\$2b\$10\$};
print $hash;
